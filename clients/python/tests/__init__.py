"""The tests of the client. The README says how to run them."""
