"""Users that change while they are served: what lies over a bundle's own, behind one contract."""
