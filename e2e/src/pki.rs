//! The cluster's certificate authority and the certificates and kubeconfigs made with it.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use serde_json::json;

use crate::config::write_atomically;

/// The authority, kept in `pki/`.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// The private key, PEM (PKCS 8).
    pub key: PathBuf,
}

impl Authority {
    /// Opens the authority in `folder`, or makes a new one.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let (cert, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        if !cert.exists() {
            let mut params = params("slipway-e2e", None)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            let pair = KeyPair::generate()?;
            write_atomically(&key, pair.serialize_pem().as_bytes())?;
            write_atomically(&cert, params.self_signed(&pair)?.pem().as_bytes())?;
        }
        let pair =
            KeyPair::from_pem(&fs::read_to_string(&key)?).context("failed to read the cluster's CA key")?;
        // The issuer's name and key identifier are all that a signature takes from the authority's certificate.
        let mut params = params("slipway-e2e", None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, pair),
        })
    }

    /// The authority's certificate.
    pub fn cert(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The authority's key, for the controller that signs requests.
    pub fn key(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// The pair of keys that signs service account tokens; `cert` is the bare public key.
    pub fn service_account(&self) -> Result<Pair> {
        let pair = Pair {
            cert: self.folder.join("service-account.pub"),
            key: self.folder.join("service-account.key"),
        };
        if !pair.cert.exists() {
            let key = KeyPair::generate()?;
            write_atomically(&pair.key, key.serialize_pem().as_bytes())?;
            write_atomically(&pair.cert, key.public_key_pem().as_bytes())?;
        }
        Ok(pair)
    }

    /// A certificate for `user` (in `group`), valid as client, and as server for `names` and `addresses`.
    pub fn issue(
        &self,
        file: &str,
        user: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Pair> {
        let pair = Pair {
            cert: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        if pair.cert.exists() && pair.key.exists() {
            return Ok(pair);
        }
        let mut params = params(user, group)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !names.is_empty() || !addresses.is_empty() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        let key = KeyPair::generate()?;
        write_atomically(&pair.key, key.serialize_pem().as_bytes())?;
        write_atomically(&pair.cert, params.signed_by(&key, &self.issuer)?.pem().as_bytes())?;
        Ok(pair)
    }

    /// Writes a kubeconfig for `pair` to `file`; it names the certificates by path.
    pub fn kubeconfig(&self, file: &Path, server: &str, pair: &Pair) -> Result<()> {
        // JSON is YAML. The data is held inside so that the file can be copied to another place.
        let data = |path: &Path| -> Result<String> { Ok(BASE64_STANDARD.encode(fs::read(path)?)) };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "slipway",
            "clusters": [{"name": "slipway", "cluster": {
                "server": server, "certificate-authority-data": data(&self.cert())?}}],
            "users": [{"name": "slipway", "user": {
                "client-certificate-data": data(&pair.cert)?, "client-key-data": data(&pair.key)?}}],
            "contexts": [{"name": "slipway", "context": {"cluster": "slipway", "user": "slipway"}}],
        });
        let text = serde_json::to_vec_pretty(&config)?;
        if fs::read(file).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write_atomically(file, &text)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}

fn params(user: &str, group: Option<&str>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    // A test cluster outlives no decade; a start long past forgives a machine whose clock is wrong.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reopened_authority_keeps_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let pair = first
            .issue("admin", "admin", Some("system:masters"), &[], &[])
            .unwrap();
        let before = fs::read(&pair.cert).unwrap();
        let again = Authority::open(dir.path()).unwrap();
        again
            .issue("admin", "admin", Some("system:masters"), &[], &[])
            .unwrap();
        assert_eq!(fs::read(&pair.cert).unwrap(), before);
    }
}
