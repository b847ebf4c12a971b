"""What is known of users when a request names one."""
