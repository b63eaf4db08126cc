# PostgreSQL 17 with imgpipe, and a sender of sample photographs; docker-compose.yml runs them.

FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
	gcc libc6-dev libfreetype-dev librdkafka-dev libseccomp-dev libvips-dev make pkg-config postgresql-server-dev-17
WORKDIR /imgpipe
COPY . .
RUN make -j"$(nproc)" with_llvm=no && make install with_llvm=no DESTDIR=/install


FROM debian:trixie-slim AS imgpipe
# User 1000 as in the image of Apache Kafka: volumes with keys are written by one service and read by another.
# No cluster is made at the installation: the volume gets it, at the first start.
RUN groupadd --gid 1000 postgres \
	&& useradd --uid 1000 --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres \
	&& mkdir -p /etc/postgresql-common \
	&& echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf \
	&& apt-get update && apt-get install -y --no-install-recommends \
		fonts-dejavu-core libfreetype6 libheif-plugin-aomenc libheif-plugin-x265 librdkafka1 libseccomp2 libvips42t64 \
		openssl postgresql-17 \
	&& rm -rf /var/lib/apt/lists/*
# A new volume has the owner of the folder that it covers.
RUN install -d -o postgres -g postgres -m 700 /keys /certificates \
	&& cd /certificates && install -d -o postgres -g postgres -m 700 authority broker administrator database replica imgpipe camera analyst
COPY --from=build /install /
COPY docker /docker
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin
USER postgres


FROM debian:trixie-slim AS photographs
RUN useradd --uid 1000 --user-group camera \
	&& apt-get update && apt-get install -y --no-install-recommends kcat mate-backgrounds \
	&& rm -rf /var/lib/apt/lists/*
COPY docker /docker
USER camera
