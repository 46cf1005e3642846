"""The toolkit of HTML reports: each is one file, without scripts, that loads nothing."""
