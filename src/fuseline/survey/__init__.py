"""Look at a data set as a whole, and write its page: what it holds, what repeats, what leaked, what changed."""
