#!/usr/bin/env bash
# Installs what building and testing infopt needs, as far as it is missing. Debian 12 or newer, Ubuntu 22.04 or newer.
set -euo pipefail
packages=(g++ cmake ninja-build ccache make git python3 python3-pip python3-venv protobuf-compiler libprotobuf-dev
  libfmt-dev libspdlog-dev libeigen3-dev libcli11-dev nlohmann-json3-dev libyaml-cpp-dev zlib1g-dev libjpeg-dev libpng-dev
  libdnnl-dev libgtest-dev libgmock-dev)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
echo "installing: ${missing[*]}"
"${sudo[@]}" apt-get update -q > /dev/null
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" > /dev/null
