//! A self-signed certificate (RFC 5280) for one name, as few bytes of DER as do.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTF8: u8 = 0x0c;
const TIME: u8 = 0x18;
/// `[0]` and `[3]` of a certificate, `[2]` of a name.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;

/// Object identifiers with their tag: Ed25519 (RFC 8410), common name, subject alternative name.
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 0x04, 0x03];
const ALTERNATIVE_NAME: &[u8] = &[0x06, 3, 0x55, 0x1d, 0x11];

/// A value and its length.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).expect("a certificate is short").to_be_bytes();
    let head = match content.len() {
        0..128 => vec![tag, length[1]],
        128..256 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [head, content].concat()
}

fn pem(label: &str, bytes: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate, which is its own authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Writes a new certificate for the host `name`, and its key, into a folder that is made if need be.
///
/// # Panics
/// They can't be made or written.
#[must_use]
pub fn certificate(folder: &Path, name: &str) -> Certificate {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a random key");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("the key that was made");
    let algorithm = der(SEQUENCE, &[ED25519]);
    let subject =
        der(SEQUENCE, &[&der(SET, &[&der(SEQUENCE, &[COMMON_NAME, &der(UTF8, &[name.as_bytes()])])])]);
    let validity = der(SEQUENCE, &[&der(TIME, &[b"20000101000000Z"]), &der(TIME, &[b"99991231235959Z"])]);
    let key = der(SEQUENCE, &[&algorithm, &der(BIT_STRING, &[&[0], pair.public_key().as_ref()])]);
    let names = der(SEQUENCE, &[&der(DNS_NAME, &[name.as_bytes()])]);
    let extension = der(SEQUENCE, &[ALTERNATIVE_NAME, &der(OCTET_STRING, &[&names])]);
    let body = der(
        SEQUENCE,
        &[
            &der(VERSION, &[&[INTEGER, 1, 2]]),
            &[INTEGER, 1, 1],
            &algorithm,
            &subject,
            &validity,
            &subject,
            &key,
            &der(EXTENSIONS, &[&der(SEQUENCE, &[&extension])]),
        ],
    );
    let signature = der(BIT_STRING, &[&[0], pair.sign(&body).as_ref()]);
    let certificate = der(SEQUENCE, &[&body, &algorithm, &signature]);
    std::fs::create_dir_all(folder).expect("a folder of the test");
    let files = Certificate { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.cert, pem("CERTIFICATE", &certificate)).expect("a file of the test");
    std::fs::write(&files.key, pem("PRIVATE KEY", pkcs8.as_ref())).expect("a file of the test");
    files
}
