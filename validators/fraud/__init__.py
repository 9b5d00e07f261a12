"""Is this customer spending suspiciously much in one go?"""
