"""Processes of one run on several hosts: how they meet, watch each other, and share a folder."""
