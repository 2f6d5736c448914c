"""Conversion between bytes and domain values; protobuf is used only here."""
