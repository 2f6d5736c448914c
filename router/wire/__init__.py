"""Bytes ⇄ domain: the only room that knows protobuf."""
