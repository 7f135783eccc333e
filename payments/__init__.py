"""Customers' own payments: connectors to wallets and aggregators behind one port, and a desk."""
