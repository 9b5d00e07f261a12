"""Does the order make sense in itself?"""
