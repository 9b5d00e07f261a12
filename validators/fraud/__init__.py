"""Fraud validator: does a customer order suspiciously much in one session?"""
