/**
 * The Homebrew formula: Ruby reads it, and a stand-in for Homebrew's own class follows it: each kind of machine
 * gets its archive with its hash, and everything that it installs is in the archive.
 */

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { formula, type Packed } from "../../.release/homebrew.ts";
import { TARGETS } from "../../.release/targets.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { ok } from "./exec.ts";
import { type Release, thisRelease } from "./releases.ts";

/** As much of Homebrew as the formula speaks to, for the machine that is asked for. Prints what it was told as JSON. */
const STAND_IN = `
require "json"
SYSTEM, MACHINE, FORMULA, TREE = ARGV
$told = { "installs" => [] }
class Place
  def initialize(name) = @name = name
  def install(*paths)
    paths.flatten.each { |path| $told["installs"] << [@name, path, File.exist?(File.join(TREE, path))] }
  end
  def /(more) = Place.new("#{@name}/#{more}")
  def to_s = @name
end
class Service
  def method_missing(name, *args, **more) = ($told["service"] ||= {})[name] = (args + [more]).flatten.map { |a| a.is_a?(Hash) ? a.transform_values(&:to_s) : a.to_s }
  def opt_bin = Place.new("bin")
  def var = Place.new("var")
end
class Formula
  class << self
    %w[desc homepage version license url sha256].each { |name| define_method(name) { |text| $told[name] = text } }
    def on_macos = (yield if SYSTEM == "darwin")
    def on_linux = (yield if SYSTEM == "linux")
    def on_arm = (yield if MACHINE == "arm64")
    def on_intel = (yield if MACHINE == "x64")
    def service(&block) = Service.new.instance_eval(&block)
    def test(&block) = define_method(:test, &block)
  end
  %w[bin man1 bash_completion zsh_completion fish_completion pkgshare doc].each { |name| define_method(name) { Place.new(name) } }
end
load FORMULA
Dir.chdir(TREE) { Shishi.new.install }
puts $told.to_json
`;

let release: Release;
let folder: string;
let tree: string;

before(async () => {
  release = await thisRelease();
  folder = tempDir("homebrew");
  writeFileSync(join(folder, "homebrew.rb"), STAND_IN);
  const archive = join(release.folder, `shishi-${release.version}-linux-x64.tar`);
  await ok(["tar", "--extract", "--file", archive, "--directory", folder]);
  tree = join(folder, basename(archive, ".tar"));
});
after(() => removeDir(folder));

async function follow(file: string, target: string) {
  await ok(["ruby", "-wc", file]);
  const [system = "", machine = ""] = target.split("-");
  return JSON.parse(await ok(["ruby", join(folder, "homebrew.rb"), system, machine, file, tree]));
}

test("that of the release names the archive beside it, and installs what is in it", async () => {
  const told = await follow(join(release.folder, "homebrew/shishi.rb"), "linux-x64");
  const name = told.url.split("/").at(-1);
  assert.match(await ok(["sha256sum", join(release.folder, name)]), new RegExp(`^${told.sha256} `));
  assert.deepEqual([told.version, told.license], [release.version, "MIT"]);
  assert.ok(told.installs.length >= 8);
  assert.deepEqual(told.installs.filter(([, , there]: [string, string, boolean]) => !there), []);
  assert.deepEqual(told.service.run.slice(0, 2), ["bin/shishi", "serve"]);
});

test("each Mac and each Linux with glibc gets its own archive, from where it is said to lie", async () => {
  const packed = TARGETS.map((target, n): Packed => ({
    target,
    file: `shishi-1.2.3-${target.name}.tar.xz`,
    sha256: String(n).repeat(64),
  }));
  const file = join(folder, "shishi.rb");
  writeFileSync(file, formula("1.2.3", packed, "https://downloads.example/1.2.3"));
  for (const target of ["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"]) {
    const { file: name, sha256 } = packed.find((one) => one.target.name === target)!;
    const told = await follow(file, target);
    assert.equal(told.url, `https://downloads.example/1.2.3/${name}`);
    assert.equal(told.sha256, sha256);
  }
  assert.doesNotMatch(readFileSync(file, "utf8"), /musl|windows/);
});
