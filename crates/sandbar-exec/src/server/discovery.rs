//! `capabilities/discoverV2`: the skills and plugins that are installed on this executor.
//!
//! Looks where the peer looks and nowhere else: `skills` and `plugins/cache` of `CODEX_HOME`, `.agents/skills` of the home,
//! `/etc/codex/skills`. Says what is there; whether a plugin is enabled and a skill is used is the client's matter. What
//! can't be read is left out with a warning, since one broken file is no reason to hide the others. Nothing is kept
//! between two requests, so an answer is never old.

mod plugin;
mod skill;
mod yaml;

use std::collections::{BTreeMap, HashSet};

use sandbar_proto::AbsPath;
use sandbar_proto::exec::{
    Discovered, DiscoveryRoot, EntryKind, InstalledPlugin, InstalledSkill, PluginFiles, Skill, TextFile,
    WalkOptions, WirePath,
};
use sandbar_proto::rpc::{RpcError, code};

use super::Host;
use super::reading::Reading;

/// Largest file that is read.
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Most bytes of an answer, about; what comes behind is left out.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of an answer that a skill or a plugin has besides its texts.
const ENTRY_BYTES: usize = 512;

/// Most plugins that are looked at.
const MAX_PLUGINS: usize = 1000;

/// How far a place is searched; the peer's bounds. What lies in the sixth directory is told still.
const WITHIN: WalkOptions = WalkOptions {
    max_depth: 7,
    max_directories: 2000,
    max_entries: 20_000,
    follow_directory_symlinks: true,
    prune_hidden: false,
};

/// Marketplaces, their plugins and the versions of these; what was installed is no link.
const VERSIONS: WalkOptions = WalkOptions { max_depth: 3, follow_directory_symlinks: false, ..WITHIN };

const LOCATIONS: &str = "some capability locations could not be resolved; discovery may be incomplete";
const METADATA: &str = "some capability metadata could not be loaded; discovery may be incomplete";
const SIZE: &str = "capability discovery size limit reached";

/// Carries the method out.
///
/// # Errors
/// There is no home.
pub(super) async fn discover(host: &Host, reading: &Reading<'_>) -> Result<Discovered, RpcError> {
    let failed = |why: String| RpcError::with_kind(code::INTERNAL, "discovery", why);
    let codex_home = host.codex_home();
    let codex_home = codex_home.ok_or_else(|| failed("this executor has no home directory".to_owned()))?;
    let place = |base: &AbsPath, below: &str| base.join(below).map_err(|error| failed(error.to_string()));
    let mut roots = vec![("codex-home-skills", place(&codex_home, "skills")?)];
    if let Some(home) = &host.home {
        roots.push(("user-agent-skills", place(home, ".agents/skills")?));
    }
    roots.push(("system-skills", place(&AbsPath::root(), "etc/codex/skills")?));
    let mut search = Search { reading, left: MAX_ANSWER_BYTES, warnings: Vec::new() };
    let plugins = search.plugins(&place(&codex_home, "plugins/cache")?).await;
    let mut skills = Vec::new();
    for (id, path) in roots {
        let root = DiscoveryRoot { id: id.to_owned(), path: WirePath(path.clone()) };
        let found = search.skills(&path).await;
        skills.extend(found.into_iter().map(|skill| InstalledSkill { skill, discovery_root: root.clone() }));
    }
    Ok(Discovered { plugins, skills, warnings: search.warnings })
}

/// One search.
struct Search<'a> {
    reading: &'a Reading<'a>,
    /// Bytes that the answer may still get.
    left: usize,
    warnings: Vec<String>,
}

impl Search<'_> {
    /// Says something once.
    fn warn(&mut self, what: &str) {
        if !self.warnings.iter().any(|known| known == what) {
            self.warnings.push(what.to_owned());
        }
    }

    /// Takes room in the answer; says so when there is none.
    fn take(&mut self, bytes: usize) -> Option<()> {
        let left = self.left.checked_sub(bytes + ENTRY_BYTES);
        if left.is_none() {
            self.warn(SIZE);
        }
        self.left = left?;
        Some(())
    }

    /// The text of a file; nothing, with a warning if it is there.
    async fn text(&mut self, path: &AbsPath) -> Option<String> {
        let read = self.reading.text(path, MAX_FILE_BYTES).await;
        if read.is_err() {
            self.warn(METADATA);
        }
        read.ok().flatten()
    }

    /// The files below a place, by their paths; none if it is missing.
    async fn files(&mut self, root: &AbsPath) -> Vec<AbsPath> {
        let walked = match self.reading.walk(root, WITHIN).await {
            Ok(Some(walked)) => walked,
            Ok(None) => return Vec::new(),
            Err(_) => {
                self.warn(METADATA);
                return Vec::new();
            }
        };
        if walked.truncated || !walked.errors.is_empty() {
            self.warn(METADATA);
        }
        let files = walked.entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
        files.map(|entry| entry.path.0).collect()
    }

    /// The skills below a place.
    async fn skills(&mut self, root: &AbsPath) -> Vec<Skill> {
        let files = self.files(root).await;
        let namespaces = self.namespaces(&files).await;
        let known: HashSet<&AbsPath> = files.iter().collect();
        let mut skills = Vec::new();
        for path in files.iter().filter(|path| path.file_name() == Some(b"SKILL.md")) {
            let Some(folder) = path.parent() else { continue };
            let front = match self.text(path).await {
                Some(text) => skill::front(&text),
                None => continue,
            };
            let Some(skill::Front { name, description, short_description }) = front else {
                self.warn(METADATA);
                continue;
            };
            let agents = folder.join("agents/openai.yaml").ok().filter(|path| known.contains(path));
            let agents = match agents {
                Some(path) => self.text(&path).await.map(|text| skill::agents(&text)).unwrap_or_default(),
                None => skill::Agents::default(),
            };
            let name = name.unwrap_or_else(|| name_of(&folder));
            let owner = std::iter::successors(Some(folder), AbsPath::parent)
                .find_map(|folder| namespaces.get(&folder));
            let name = owner.map_or_else(|| name.clone(), |owner| format!("{owner}:{name}"));
            if self.take(name.len() + description.len()).is_none() {
                break;
            }
            let path = WirePath(path.clone());
            let skill::Agents { dependencies, policy } = agents;
            skills.push(Skill { name, description, short_description, path, dependencies, policy });
        }
        skills
    }

    /// Directories that are plugins, with their names, which stand before those of their skills.
    async fn namespaces(&mut self, files: &[AbsPath]) -> BTreeMap<AbsPath, String> {
        let mut namespaces = BTreeMap::new();
        for [folder, file] in plugin::MANIFESTS {
            let is_manifest = |path: &&AbsPath| {
                let above = path.parent();
                path.file_name() == Some(file.as_bytes())
                    && above.as_ref().and_then(AbsPath::file_name) == Some(folder.as_bytes())
            };
            for path in files.iter().filter(is_manifest).take(MAX_PLUGINS) {
                let Some(root) = path.parent().and_then(|folder| folder.parent()) else { continue };
                if namespaces.contains_key(&root) {
                    continue;
                }
                let text = self.text(path).await;
                if let Some(manifest) = text.and_then(|text| plugin::manifest(&text)) {
                    let name = manifest.name.unwrap_or_else(|| name_of(&root));
                    namespaces.insert(root, name);
                }
            }
        }
        namespaces
    }

    /// The plugins in a cache, each in its newest version.
    async fn plugins(&mut self, cache: &AbsPath) -> Vec<InstalledPlugin> {
        let walked = match self.reading.walk(cache, VERSIONS).await {
            Ok(Some(walked)) => walked,
            Ok(None) => return Vec::new(),
            Err(_) => {
                self.warn(LOCATIONS);
                return Vec::new();
            }
        };
        if walked.truncated || !walked.errors.is_empty() {
            self.warn(LOCATIONS);
        }
        let mut installed: BTreeMap<String, Vec<AbsPath>> = BTreeMap::new();
        for entry in walked.entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let path = entry.path.0;
            let Some((id, true)) = id_of(&path).map(|id| (id, path.depth() == cache.depth() + 3)) else {
                continue;
            };
            installed.entry(id).or_default().push(path);
        }
        if installed.len() > MAX_PLUGINS {
            self.warn(SIZE);
        }
        let mut plugins = Vec::new();
        for (id, versions) in installed.into_iter().take(MAX_PLUGINS) {
            let Some(root) = plugin::newest(versions) else { continue };
            match self.plugin(id, root).await {
                Some(plugin) => plugins.push(plugin),
                None => self.warn(METADATA),
            }
        }
        plugins
    }

    /// A plugin; nothing if it has no manifest that can be read.
    async fn plugin(&mut self, id: String, root: AbsPath) -> Option<InstalledPlugin> {
        let mut found = None;
        for [folder, file] in plugin::MANIFESTS {
            let path = root.join(format!("{folder}/{file}")).ok()?;
            if let Some(text) = self.text(&path).await {
                found = Some((path, text));
                break;
            }
        }
        let (path, contents) = found?;
        let manifest = plugin::manifest(&contents)?;
        if manifest.has_skills_elsewhere {
            self.warn(METADATA);
        }
        self.take(contents.len())?;
        let mcp_config = self.part(&root, &path, manifest.mcp, ".mcp.json").await;
        let apps_config = self.part(&root, &path, manifest.apps, ".app.json").await;
        let skills = self.skills(&root).await;
        let version = name_of(&root);
        let name = manifest.name.unwrap_or_else(|| version.clone());
        Some(InstalledPlugin {
            id,
            display_name: manifest.display_name.unwrap_or(name),
            remote_plugin_id: None,
            version,
            root: WirePath(root),
            files: PluginFiles {
                manifest: TextFile { path: WirePath(path), contents },
                mcp_config,
                apps_config,
            },
            skills,
        })
    }

    /// A part of a plugin: what it says in its manifest at `manifest`, or in a file.
    async fn part(
        &mut self,
        root: &AbsPath,
        manifest: &AbsPath,
        part: plugin::Part,
        usual: &str,
    ) -> Option<TextFile> {
        let (path, contents) = match part {
            plugin::Part::Inline(contents) => (manifest.clone(), contents),
            plugin::Part::File(name) => {
                let path = root.join(name).ok()?;
                let text = self.text(&path).await;
                if text.is_none() {
                    self.warn(METADATA);
                }
                (path, text?)
            }
            part @ (plugin::Part::Usual | plugin::Part::Outside) => {
                if part == plugin::Part::Outside {
                    self.warn(METADATA);
                }
                let path = root.join(usual).ok()?;
                let text = self.text(&path).await?;
                (path, text)
            }
        };
        self.take(contents.len())?;
        Some(TextFile { path: WirePath(path), contents })
    }
}

fn name_of(path: &AbsPath) -> String {
    String::from_utf8_lossy(path.file_name().unwrap_or_default()).into_owned()
}

/// `PLUGIN@MARKETPLACE` of the directory of a version; nothing where a name is none.
fn id_of(version: &AbsPath) -> Option<String> {
    let mut names = version.components().rev();
    let (version, plugin, marketplace) = (names.next()?, names.next()?, names.next()?);
    let are_names = plugin::is_version(version) && plugin::is_name(plugin) && plugin::is_name(marketplace);
    are_names.then(|| format!("{}@{}", String::from_utf8_lossy(plugin), String::from_utf8_lossy(marketplace)))
}
