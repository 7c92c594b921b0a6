//! `POST /v1/hash` and `POST /v1/verify`: argon2id, which is slow by design and computes on the handler's thread.

use std::cell::RefCell;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{Error, try_generate_salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};

use super::body::Json;
use super::problem::Problem;

/// The longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// The longest hash in PHC form, in bytes.
const MAX_HASH: usize = 512;

/// The highest cost of checking a client's hash: 46 MiB (in KiB; the largest value that OWASP's password storage cheat sheet
/// recommends), 10 passes, 4 lanes. Without limits, a client could demand 4 TiB.
const MAX_MEMORY: u32 = 47_104;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HashRequest {
    password: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Hashed {
    hash: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    password: String,
    hash: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    valid: bool,
}

/// Hashes with OWASP's first choice, which is the default of `argon2`: argon2id, 19 MiB, 2 passes, 1 lane.
pub(crate) async fn hash(Json(HashRequest { password }): Json<HashRequest>) -> Result<Json<Hashed>, Problem> {
    match new_hash(check_password(&password)?) {
        Ok(hash) => Ok(Json(Hashed { hash: hash.to_string() })),
        Err(error) => Err(Problem::internal("the password could not be hashed", &error)),
    }
}

pub(crate) async fn verify(Json(request): Json<VerifyRequest>) -> Result<Json<Verified>, Problem> {
    let password = check_password(&request.password)?;
    let hash = check_hash(&request.hash)?;
    match is_of(password, &hash) {
        Ok(valid) => Ok(Json(Verified { valid })),
        Err(error) => Err(Problem::internal("the password could not be checked", &error)),
    }
}

fn new_hash(password: &[u8]) -> Result<PasswordHash, Error> {
    let params = Params::default();
    let salt = Salt::new(&try_generate_salt()?)?;
    Ok(PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params)?,
        hash: Some(digest(password, &salt, Version::V0x13, params)?),
        salt: Some(salt),
    })
}

fn is_of(password: &[u8], hash: &PasswordHash) -> Result<bool, Error> {
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
    let version = hash.version.map_or(Ok(Version::V0x13), Version::try_from)?;
    // The comparison takes constant time.
    Ok(digest(password, salt, version, Params::try_from(hash)?)? == *expected)
}

thread_local! {
    /// The memory of argon2, which each worker keeps until it ends. Allocating 19 MiB for each password took as long as the
    /// hash itself, and glibc's allocator kept gigabytes of it.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn digest(password: &[u8], salt: &[u8], version: Version, params: Params) -> Result<Output, Error> {
    let (blocks, length) = (params.block_count(), params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN));
    let argon2 = Argon2::new(Algorithm::Argon2id, version, params);
    let mut digest = [0; Output::MAX_LENGTH];
    let digest = digest.get_mut(..length).ok_or(Error::OutputSize)?;
    MEMORY.with_borrow_mut(|memory| {
        memory.resize(blocks.max(memory.len()), Block::default());
        let digested = argon2.hash_password_into_with_memory(password, salt, digest, &mut *memory);
        // More memory than our own hashes need, which a client's hash may take, is not kept.
        memory.truncate(Params::DEFAULT.block_count());
        memory.shrink_to(Params::DEFAULT.block_count());
        digested
    })?;
    Ok(Output::new(digest)?)
}

fn check_password(password: &str) -> Result<&[u8], Problem> {
    match password.len() {
        1..=MAX_PASSWORD => Ok(password.as_bytes()),
        length => Err(Problem::bad_request(format!("password: it has {length} bytes; give 1 to {MAX_PASSWORD}"))),
    }
}

/// Reads a hash. A hash that cannot be checked, or costs too much, is an error.
fn check_hash(text: &str) -> Result<PasswordHash, Problem> {
    let malformed = |why: String| Problem::bad_request(format!("hash: {why}; give one as `/v1/hash` makes them"));
    if text.len() > MAX_HASH {
        return Err(malformed(format!("it is longer than {MAX_HASH} bytes")));
    }
    let hash = PasswordHash::new(text).map_err(|error| malformed(format!("it is not in PHC form ({error})")))?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err(malformed(format!("its algorithm is {}, not argon2id", hash.algorithm)));
    }
    if hash.version.is_some_and(|version| version != 0x13 && version != 0x10) {
        return Err(malformed("its version is neither 16 nor 19".to_owned()));
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(malformed("it has no salt or no digest".to_owned()));
    }
    let params = Params::try_from(&hash).map_err(|error| malformed(format!("its parameters are wrong ({error})")))?;
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        return Err(malformed(format!(
            "it asks for too much (m={},t={},p={}); at most m={MAX_MEMORY},t={MAX_PASSES},p={MAX_LANES} is checked",
            params.m_cost(),
            params.t_cost(),
            params.p_cost()
        )));
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, PasswordVerifier};

    use super::*;

    #[tokio::test]
    async fn a_hash_verifies_its_password_and_no_other() {
        let Json(Hashed { hash }) = hash(Json(HashRequest { password: "pässword".into() })).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        for (password, expected) in [("pässword", true), ("password", false)] {
            let request = VerifyRequest { password: password.into(), hash: hash.clone() };
            let Json(Verified { valid }) = verify(Json(request)).await.unwrap();
            assert_eq!(valid, expected, "{password}");
        }
    }

    #[test]
    fn hashes_are_those_of_argon2_whatever_the_memory_was_used_for_before() {
        let password: &[u8] = b"correct horse";
        for (memory, passes, lanes) in [(64, 1, 1), (47_104, 1, 4), (8, 2, 1), (19_456, 2, 1), (256, 3, 2)] {
            let params = Params::new(memory, passes, lanes, Some(24)).unwrap();
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x10, params);
            let foreign = argon2.hash_password_with_salt(password, b"somesaltsomesalt").unwrap();
            assert!(is_of(password, &foreign).unwrap(), "m={memory},t={passes},p={lanes}");
            assert!(!is_of(b"correct house", &foreign).unwrap(), "m={memory},t={passes},p={lanes}");
            let ours = new_hash(password).unwrap();
            assert!(Argon2::default().verify_password(password, &ours).is_ok());
            assert_ne!(ours.salt, new_hash(password).unwrap().salt);
            assert_eq!(MEMORY.with_borrow(Vec::capacity), Params::DEFAULT.block_count());
        }
    }

    #[test]
    fn a_hash_that_is_malformed_or_costs_too_much_is_refused() {
        let salt_and_digest = "c29tZXNhbHRzb21lc2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
        assert!(check_hash(&format!("$argon2id$v=19$m=19456,t=2,p=1${salt_and_digest}")).is_ok());
        for (hash, why) in [
            (String::new(), "PHC form"),
            ("secret".into(), "PHC form"),
            ("$argon2id$v=19$m=19456,t=2,p=1".into(), "no salt"),
            (format!("$argon2id$v=19$m=4294967295,t=2,p=1${salt_and_digest}"), "too much"),
            (format!("$argon2id$v=19$m=19456,t=4000000,p=1${salt_and_digest}"), "too much"),
            (format!("$argon2id$v=19$m=19456,t=2,p=200${salt_and_digest}"), "too much"),
            (format!("$argon2id$v=19$m=1,t=2,p=1${salt_and_digest}"), "parameters"),
            (format!("$argon2id$v=7$m=19456,t=2,p=1${salt_and_digest}"), "version"),
            (format!("$scrypt$ln=16,r=8,p=1${salt_and_digest}"), "algorithm"),
            ("$argon2id$".repeat(100), "longer"),
        ] {
            let problem = check_hash(&hash).map(|_| ()).unwrap_err();
            assert!(format!("{problem:?}").contains(why), "{hash}: {problem:?}");
        }
    }

    #[test]
    fn a_password_has_1_to_1024_bytes() {
        for (length, allowed) in [(0, false), (1, true), (1024, true), (1025, false)] {
            assert_eq!(check_password(&"x".repeat(length)).is_ok(), allowed, "{length}");
        }
    }
}
