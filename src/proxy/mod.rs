//! The way of one request, from the loopback socket to the upstream and back.
