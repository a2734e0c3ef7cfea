"""What people agree to: money, usage, prices, licences. Pure; the standard library only."""
