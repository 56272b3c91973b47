"""What judges an answer: rules over its opening."""
