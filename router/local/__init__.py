"""The local fleet: embedded servers, pods and the proof, for `make run`."""
