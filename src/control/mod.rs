//! How kimiq's processes find and talk to one another: registry, protocol, server, client, attach relay.
