"""Is somebody doing to a product what nobody should?"""
