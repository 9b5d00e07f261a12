"""Details validator: are all fields of an order valid, and does its product exist?"""
