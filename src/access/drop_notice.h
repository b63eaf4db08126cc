/* drop_notice.h */
#ifndef IMGPIPE_DROP_NOTICE_H
#define IMGPIPE_DROP_NOTICE_H

extern void tell_what_stays(void);

#endif
