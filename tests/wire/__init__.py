"""Servers that speak the providers' wire formats and refuse what their documents do not allow."""
