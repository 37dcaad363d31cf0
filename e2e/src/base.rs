//! stub
/// x
pub async fn push() -> anyhow::Result<()> { Ok(()) }
