"""How each model of the family stands in the whole-catalogue square loss: linear maps, and Jacobians where it is not linear."""
