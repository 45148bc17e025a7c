//! A package of the npm registry, fetched, checked and unpacked.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use camino::Utf8Path;
use sha2::{Digest, Sha512};

use super::chroot::Chroot;
use super::{BuildError, Builder, STEP_DEADLINE};
use crate::program::Program;
use crate::recipe::NpmPackage;

/// Part of apt, and so on every host that can build from Debian packages; speaks HTTPS, knows proxies and trusts
/// what the host trusts.
const DOWNLOADER: &str = "/usr/lib/apt/apt-helper";

pub(super) fn unpack(
    builder: &Builder<'_>,
    package: &NpmPackage,
    chroot: &Chroot,
    work: &Utf8Path,
) -> Result<(), BuildError> {
    let step = format!("npm package {}", package.package);
    let archive = work.join("package.tgz");
    let url = address(&builder.options.mirrors.npm, package);
    let download = Program::new(DOWNLOADER, STEP_DEADLINE).args([
        "-oAPT::Sandbox::User=root",
        "-oAcquire::Retries=5",
        "download-file",
        &url,
        archive.as_str(),
    ]);
    builder.program(&step, download)?;

    let bytes = fs::read(&archive).map_err(BuildError::io("read", &archive))?;
    check(package, &bytes)?;
    let lent = chroot.lend("package.tgz", &bytes)?;
    fs::remove_file(&archive).map_err(BuildError::io("remove", &archive))?;
    chroot.program(builder, &step, "/usr/bin/install", &["-d", &package.into])?;
    let unpack = ["--no-same-owner", "--strip-components=1", "-xzf", lent.as_str(), "-C", &package.into];
    chroot.program(builder, &step, "/usr/bin/tar", &unpack)
}

/// The registry keeps `@scope/name` as `@scope/name/-/name-<version>.tgz`.
fn address(registry: &str, package: &NpmPackage) -> String {
    let NpmPackage { package, version, .. } = package;
    let name = package.rsplit_once('/').map_or(package.as_str(), |(_, name)| name);
    format!("{}/{package}/-/{name}-{version}.tgz", registry.trim_end_matches('/'))
}

fn check(package: &NpmPackage, bytes: &[u8]) -> Result<(), BuildError> {
    let got = format!("sha512-{}", BASE64_STANDARD.encode(Sha512::digest(bytes)));
    if got == package.integrity {
        return Ok(());
    }
    Err(BuildError::Integrity { package: package.package.clone(), want: package.integrity.clone(), got })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> NpmPackage {
        NpmPackage {
            package: name.to_owned(),
            version: "1.2.3".to_owned(),
            integrity: "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
                .to_owned(),
            into: "/opt".to_owned(),
        }
    }

    #[test]
    fn a_package_is_where_the_registry_keeps_it() {
        let registry = "https://registry.example/";
        assert_eq!(address(registry, &package("npm")), "https://registry.example/npm/-/npm-1.2.3.tgz");
        assert_eq!(address(registry, &package("@a/b")), "https://registry.example/@a/b/-/b-1.2.3.tgz");
    }

    #[test]
    fn other_bytes_than_those_of_the_recipe_are_refused() {
        assert!(check(&package("empty"), b"").is_ok());
        assert!(matches!(check(&package("empty"), b"x"), Err(BuildError::Integrity { .. })));
    }
}
