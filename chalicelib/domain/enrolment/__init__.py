"""The enrolment of EC2 instances: what is kept of each, and what is to be done next."""
