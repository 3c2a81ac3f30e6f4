//! The dialects: bytes in, bytes out.
