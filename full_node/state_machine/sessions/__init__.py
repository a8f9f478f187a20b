"""Sessions: deposits, routes, vouchers and settlement."""
