"""How a trained model gets to where it is needed: deployments to the servers of a workspace."""
