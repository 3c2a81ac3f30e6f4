//! The host: builds every room in a written order and tears it down in a written order.
