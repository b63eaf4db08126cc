# What the benchmarks share: a throwaway cluster, photographs, medians.  Sourced, from the project's root.
#
# The cluster has PostgreSQL's defaults but for shared_buffers and max_wal_size, fsync on.  PHOTOS=folder takes the
# photographs from there.  Ratios are medians of ROUNDS rounds in which the rivals take turns.

unset PGPORT PGDATABASE PGDATA PGOPTIONS PGSERVICE MAKEFLAGS MAKELEVEL
export LC_ALL=C.UTF-8
rounds=${ROUNDS:-7}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/imgpipe-bench.XXXXXX")
PATH=$(${PG_CONFIG:-pg_config} --bindir):$PATH
if [ "$(id -u)" -eq 0 ]; then
	as_root() { "$@"; }
	as_user() { runuser -u postgres -- env HOME="$tmp" "$@"; }
	chown postgres "$tmp"
	chmod 755 "$tmp"
else
	as_root() { sudo "$@"; }
	as_user() { "$@"; }
fi

clean_up()
{
	[ ! -e "$tmp/cluster/postmaster.pid" ] || as_user pg_ctl stop -s -m immediate -D "$tmp/cluster"
	[ ! -e "$tmp/kafka/pid" ] || as_user test/kafka/broker kill "$tmp/kafka"
	rm -rf "$tmp"
}
trap clean_up EXIT

ask()
{
	psql -X -A -t -q -v ON_ERROR_STOP=1 -c "$1"
}

# Numbers on standard input, one a line.
median()
{
	sort -n | awk '{ n[NR] = $1 } END { printf "%.3f", (n[int((NR + 1) / 2)] + n[int(NR / 2) + 1]) / 2 }'
}

# <file>: numbers of the same round stand in the same line of each file.
ratios()
{
	paste "$1" "$2" | awk '{ print $1 / $2 }'
}

photographs()
{
	local folder
	for folder in "${PHOTOS:-}" ../shared/data/photos /usr/share/backgrounds/mate/nature; do
		if [ -n "$folder" ] && compgen -G "$folder/*.jpg" >/dev/null; then
			ls "$folder"/*.jpg | head -n "$1"
			return
		fi
	done
	echo "no photographs: set PHOTOS to a folder of JPEG files, or install mate-backgrounds" >&2
	exit 1
}

print_versions()
{
	echo "$(pg_config --version), libvips $(pkg-config --modversion vips), librdkafka $(pkg-config --modversion rdkafka)," \
		"$(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
	print_load
}

print_load()
{
	echo "load of the machine: $(cut -d ' ' -f 1-3 /proc/loadavg)"
}

# Builds, installs, and starts a cluster with the extension.
start_cluster()
{
	make -s all
	as_root make -s install >/dev/null
	as_user initdb -D "$tmp/cluster" -U postgres -A trust --no-locale -E UTF8 >/dev/null
	as_user tee -a "$tmp/cluster/postgresql.conf" >/dev/null <<-CONFIGURATION
		listen_addresses = ''
		unix_socket_directories = '$tmp'
		shared_preload_libraries = 'imgpipe'
		shared_buffers = 1GB
		max_wal_size = 16GB
		checkpoint_timeout = 1h
	CONFIGURATION
	as_user pg_ctl start -w -s -D "$tmp/cluster" -l "$tmp/postgresql.log" || {
		tail -n 20 "$tmp/postgresql.log" >&2
		exit 1
	}
	export PGHOST=$tmp PGUSER=postgres PGDATABASE=postgres
	ask "CREATE EXTENSION imgpipe"
}
