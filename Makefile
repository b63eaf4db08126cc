# imgpipe: `make demo` shows it, `make test` tests it, `make && make install` installs it.
EXTENSION = imgpipe
EXTVERSION = 0.2.0
MODULE_big = imgpipe

# Pure C that the extension and the decoder program share.
SHARED_SOURCES = src/image/facts.c $(filter-out src/pipeline/pipeline_type.c,$(wildcard src/pipeline/*.c))
DECODER_SOURCES = src/decoder/main.c src/decoder/sandbox.c $(wildcard src/decoder/codec*.c src/decoder/metadata*.c)
EXTENSION_SOURCES = $(filter-out $(DECODER_SOURCES),$(wildcard src/*.c src/*/*.c))

OBJS = $(EXTENSION_SOURCES:.c=.o)
DECODER = imgpipe-decoder
DECODER_OBJS = $(DECODER_SOURCES:.c=.o) $(SHARED_SOURCES:.c=.program.o)

# In the order in which they depend on each other.
SQL_PARTS = \
	src/install.sql \
	src/image/image.sql \
	src/image/operators.sql \
	src/image/metadata.sql \
	src/pipeline/pipeline.sql \
	src/decoder/process.sql \
	src/image/contact_sheet.sql \
	src/workers/workers.sql \
	src/store/store.sql \
	src/store/partitions.sql \
	src/store/fence.sql \
	src/ingest/ingest.sql \
	src/ingest/chunks.sql \
	src/ingest/sources.sql \
	src/ingest/status.sql \
	src/ingest/dead_letters.sql \
	src/ingest/read_topic.sql \
	src/ingest/replay.sql \
	src/outbox/outbox.sql \
	src/outbox/results.sql \
	src/processing/processing.sql \
	src/schedule/jobs.sql \
	src/schedule/runs.sql \
	src/retention/ledger.sql \
	src/retention/holds.sql \
	src/retention/purge.sql \
	src/retention/erase.sql \
	src/retention/report.sql \
	src/analytics/views.sql \
	src/sales/script.sql \
	src/sales/create.sql \
	src/sales/sample_data.sql \
	src/health/health.sql \
	src/access/log.sql \
	src/access/templates.sql \
	src/access/teams.sql \
	src/access/masks.sql \
	src/access/declared.sql \
	src/access/plan.sql \
	src/access/explain.sql \
	src/access/exceptions.sql \
	src/access/drift.sql \
	src/access/report.sql \
	src/access/presets.sql \
	src/store/first_partitions.sql

DATA_built = $(EXTENSION)--$(EXTVERSION).sql
DATA = $(wildcard upgrades/*.sql)

# samples makes what the others read.
REGRESS = samples $(filter-out samples,$(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql))))
REGRESS_OPTS = --inputdir=. --load-extension=imgpipe
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --load-extension=imgpipe

EXTRA_CLEAN = $(DECODER) $(DECODER_OBJS)

PKG_CONFIG ?= pkg-config
PG_CPPFLAGS = -Isrc $(shell $(PKG_CONFIG) --cflags rdkafka)
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare $(WERROR)
# PostgreSQL's own flags and headers are gcc's here; clang does not know all of them.
ifneq (,$(findstring clang,$(CC)))
PG_CFLAGS += -Wno-ignored-attributes -Wno-unknown-warning-option -Wno-ignored-optimization-argument
endif
SHLIB_LINK = -Wl,--version-script=src/exports.map $(shell $(PKG_CONFIG) --libs rdkafka)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(EXTENSION)--$(EXTVERSION).sql: $(SQL_PARTS)
	cat $(SQL_PARTS) > $@

# The decoder is a program of its own: none of PostgreSQL's headers or flags.
DECODER_CFLAGS = -O2 -g -std=gnu11 -fPIE -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
	-Wall -Wextra -Wno-missing-field-initializers $(WERROR) -Isrc -D_GNU_SOURCE \
	$(shell $(PKG_CONFIG) --cflags vips gmodule-no-export-2.0)
DECODER_LIBS = $(shell $(PKG_CONFIG) --libs vips gmodule-no-export-2.0) -lm
ifeq (0,$(shell $(PKG_CONFIG) --exists libseccomp; echo $$?))
DECODER_CFLAGS += -DHAVE_SECCOMP $(shell $(PKG_CONFIG) --cflags libseccomp)
DECODER_LIBS += $(shell $(PKG_CONFIG) --libs libseccomp)
endif
# text() needs it; libvips-dev of most systems brings it along.
ifeq (0,$(shell $(PKG_CONFIG) --exists freetype2; echo $$?))
DECODER_CFLAGS += -DHAVE_FREETYPE $(shell $(PKG_CONFIG) --cflags freetype2)
DECODER_LIBS += $(shell $(PKG_CONFIG) --libs freetype2)
endif

all: $(DECODER)

$(DECODER_SOURCES:.c=.o): %.o: %.c
	$(CC) $(DECODER_CFLAGS) -c -o $@ $<
$(SHARED_SOURCES:.c=.program.o): %.program.o: %.c
	$(CC) $(DECODER_CFLAGS) -c -o $@ $<
$(OBJS) $(DECODER_OBJS): Makefile $(wildcard src/*.h src/*/*.h)

$(DECODER): $(DECODER_OBJS)
	$(CC) -pie -Wl,-z,relro,-z,now -o $@ $^ $(DECODER_LIBS)

install: install-decoder
.PHONY: install-decoder uninstall-decoder
install-decoder: $(DECODER)
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $(DECODER) '$(DESTDIR)$(pkglibdir)/$(DECODER)'

uninstall: uninstall-decoder
uninstall-decoder:
	rm -f '$(DESTDIR)$(pkglibdir)/$(DECODER)'

.PHONY: demo demo-stop test test-docker test-matrix test-fresh release bench docs
docs:
	@docs/make_operations
demo:
	@test/demo
demo-stop:
	@test/demo_stop
test:
	@test/run
test-docker:
	@test/docker/run
test-matrix:
	@test/matrix
test-fresh:
	@test/fresh
release:
	@releases/freeze
bench:
	@test/bench/run

# Longer than a test may take; see the head of test/fuzz/run for the settings.
.PHONY: fuzz sanitize bench-process bench-ingest bench-purge
fuzz: $(DECODER)
	@test/fuzz/run fuzz
sanitize:
	@SOURCES='$(DECODER_SOURCES) $(SHARED_SOURCES)' LIBRARIES='$(DECODER_LIBS)' \
		FLAGS='$(filter-out -O2 -D_FORTIFY_SOURCE=2 -DHAVE_SECCOMP,$(DECODER_CFLAGS))' test/fuzz/run sanitize
bench-process bench-ingest bench-purge: bench-%:
	@test/bench/run $*
