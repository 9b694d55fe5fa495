"""What the commands print, a module for each kind of table. A command imports its own."""
