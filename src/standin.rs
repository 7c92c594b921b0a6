#![allow(missing_docs, unreachable_pub)]
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
#[derive(Clone, Debug)]
pub struct Config {
    pub performance: Performance,
    pub server: ServerConfig,
}
#[derive(Clone, Debug)]
pub struct Performance {
    pub workers: Workers,
    pub keep_alive_timeout: Duration,
}
#[derive(Clone, Debug)]
pub struct Workers(pub usize);
impl Workers {
    pub fn count(&self) -> usize {
        self.0
    }
}
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub host: IpAddr,
    pub port: u16,
    pub shutdown_timeout: Duration,
    pub header_read_timeout: Duration,
}
impl ServerConfig {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}
impl Default for Config {
    fn default() -> Self {
        Self {
            performance: Performance { workers: Workers(2), keep_alive_timeout: Duration::from_secs(30) },
            server: ServerConfig {
                host: [127, 0, 0, 1].into(),
                port: 3000,
                shutdown_timeout: Duration::from_secs(30),
                header_read_timeout: Duration::from_secs(10),
            },
        }
    }
}
#[derive(Clone, Debug, Default)]
pub struct Pools;
impl Pools {
    pub async fn shutdown(&self, _d: Duration) -> DrainReport {
        DrainReport
    }
}
#[derive(Clone, Debug)]
pub struct DrainReport;
impl DrainReport {
    pub fn finished(&self) -> usize {
        0
    }
    pub fn cut_off(&self) -> usize {
        0
    }
}
