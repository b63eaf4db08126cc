/* imgpipe's install script, put together by make from the parts in src/: edit those. */

\echo This is an extension script: run CREATE EXTENSION imgpipe instead. \quit

