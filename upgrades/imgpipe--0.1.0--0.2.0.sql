/* From 0.1.0 to 0.2.0: all that the parts in src/ have changed since, as ALTER, CREATE OR REPLACE and COMMENT.  Never edited once 0.2.0 is released. */

\echo This is an extension script: run ALTER EXTENSION imgpipe UPDATE instead. \quit
