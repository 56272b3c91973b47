"""What an answer says before anybody judges it: without its reasoning, and whether it is one at all."""
