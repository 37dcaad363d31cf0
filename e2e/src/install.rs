//! stub
/// x
pub async fn images(_: &std::path::Path) -> anyhow::Result<()> { Ok(()) }
/// x
pub async fn install() -> anyhow::Result<()> { Ok(()) }
/// x
pub fn env(_: &[String]) -> anyhow::Result<()> { Ok(()) }
