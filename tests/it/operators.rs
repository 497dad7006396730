//! Who may use the operators' HTTP: every path with every kind of token, sessions, hosts,
//! origins, the Unix socket and TLS. The HTTP runs in this process, and its tokens are in
//! memory.

mod in_process;
mod routes;
mod sessions;
mod tls;
mod tokens;
