//! The client program: where it lives, what its configuration says, and how its traffic is led to the proxy.
