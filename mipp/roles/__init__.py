"""The parties: owner, user, cloud, key centre. They exchange messages only; none reaches into another's memory."""
