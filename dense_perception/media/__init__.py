"""Recordings and pictures in and out: bags, videos, folders, cameras."""
