//! Makes requests wait until every budget has room.
