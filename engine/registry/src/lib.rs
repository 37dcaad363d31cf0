//! The OCI distribution client
