//! Places that answer: their addresses, their headers, their connections.
