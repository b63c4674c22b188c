"""What tests share: the program, cameras, browsers, factories."""
