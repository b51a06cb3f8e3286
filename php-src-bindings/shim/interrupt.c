/* Ending a request from outside: by another thread, or by max_execution_time. */
#ifndef _GNU_SOURCE
# define _GNU_SOURCE /* SIGEV_THREAD_ID */
#endif

#include "internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* PHP's own timers, of 8.3 and later, use SIGRTMIN. */
#define WAKE_SIGNAL (SIGRTMIN + 1)

/* Threads without timers of PHP's own: see setitimer(), below. */
#if defined(ZTS) && !defined(ZEND_MAX_EXECUTION_TIMERS)
# define OWN_TIMERS
# ifndef sigev_notify_thread_id
#  define sigev_notify_thread_id _sigev_un._tid
# endif
#endif

struct howdah_interpreter {
	pthread_t thread;
	/* How many requests began: the number of the current one. */
	_Atomic uint64_t number;
	/* Which request has to end, as its number and a howdah_ending: (number << 8) | ending. */
	_Atomic uint64_t sentence;
	zend_atomic_bool *vm_interrupt;
#ifdef OWN_TIMERS
	zend_atomic_bool *timed_out;
	timer_t timer;
	bool has_timer;
#endif
};

ZEND_TLS howdah_interpreter *self;
static void (*next_interrupt)(zend_execute_data *);

/* --- By another thread -------------------------------------------------------------------- */

uint64_t howdah_interpreter_next(const howdah_interpreter *interpreter)
{
	return atomic_load(&interpreter->number) + 1;
}

void howdah_interpreter_end(howdah_interpreter *interpreter, uint64_t number, howdah_ending ending)
{
	atomic_store(&interpreter->sentence, number << 8 | (uint64_t) ending);
	if (atomic_load(&interpreter->number) == number) {
		zend_atomic_bool_store(interpreter->vm_interrupt, true);
		/* Breaks a system call that blocks. */
		pthread_kill(interpreter->thread, WAKE_SIGNAL);
	}
}

static howdah_ending sentence(void)
{
	uint64_t given = self ? atomic_load(&self->sentence) : 0;

	return given >> 8 == (self ? atomic_load(&self->number) : 0) ? (howdah_ending) (given & 0xff)
		: HOWDAH_GO_ON;
}

/* PHP calls it between two of its instructions, once EG(vm_interrupt) is set. */
static void on_interrupt(zend_execute_data *execute_data)
{
	howdah_ending ending = sentence();

	if (ending != HOWDAH_GO_ON && current_request() && !howdah_forked) {
		/* Once is enough: shutdown functions and destructors still run. */
		atomic_store(&self->sentence, 0);
		if (ending == HOWDAH_TIMED_OUT) {
			zend_error_noreturn(E_ERROR, "Maximum run time of the request exceeded");
		}
		php_handle_aborted_connection();
	}
	if (next_interrupt) {
		next_interrupt(execute_data);
	}
}

void interrupt_startup(void)
{
	next_interrupt = zend_interrupt_function;
	zend_interrupt_function = on_interrupt;
}

void interrupt_soon(void)
{
	zend_atomic_bool_store_ex(&EG(vm_interrupt), true);
}

/* For the interpreter itself, where it is not safe to bail out. */
void interrupt_abort(void)
{
	if (self) {
		atomic_store(&self->sentence, atomic_load(&self->number) << 8 | HOWDAH_ABORTED);
		interrupt_soon();
	}
}

/* --- By max_execution_time ---------------------------------------------------------------- */

#ifdef OWN_TIMERS

/* Before 8.3, thread-safe PHP sets one timer for the whole process, whose signal goes to any of its
 * threads: another interpreter is timed out, or a thread that is none crashes. Here setitimer() is the
 * executable's own (as setlocale is: see locale.c), and gives each interpreter a timer of its own. It
 * counts the thread's CPU time, as ordinary PHP counts that of its process. */
static bool set_timer(const struct itimerval *value)
{
	struct itimerspec time = {
		.it_value = { value->it_value.tv_sec, value->it_value.tv_usec * 1000 },
	};

	if (!self->has_timer) {
		struct sigevent event = {
			.sigev_notify = SIGEV_THREAD_ID,
			.sigev_signo = WAKE_SIGNAL,
			.sigev_value.sival_ptr = self,
		};
		if (time.it_value.tv_sec == 0 && time.it_value.tv_nsec == 0) {
			return true;
		}
		event.sigev_notify_thread_id = (pid_t) syscall(SYS_gettid);
		if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &self->timer) != 0) {
			return false;
		}
		self->has_timer = true;
	}
	return timer_settime(self->timer, 0, &time, NULL) == 0;
}

/* Replaces libc's. */
ZEND_API int setitimer(__itimer_which_t which, const struct itimerval *value, struct itimerval *old)
{
	if (which == ITIMER_PROF && self && value && !old && !howdah_forked) {
		return set_timer(value) ? 0 : -1;
	}
	return (int) syscall(SYS_setitimer, which, value, old);
}

#endif

/* Its arrival is what counts: it has broken a system call. */
static void on_wake(int number, siginfo_t *info, void *context)
{
	(void) number;
	(void) context;
#ifdef OWN_TIMERS
	if (info->si_code == SI_TIMER && info->si_value.sival_ptr) {
		howdah_interpreter *interpreter = info->si_value.sival_ptr;
		zend_atomic_bool_store(interpreter->timed_out, true);
		zend_atomic_bool_store(interpreter->vm_interrupt, true);
	}
#else
	(void) info;
#endif
}

/* --- Lifetime ------------------------------------------------------------------------------ */

bool interrupt_interpreter_start(void)
{
	/* Without SA_RESTART, or no call would be broken. */
	struct sigaction action = { .sa_sigaction = on_wake, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	sigset_t wake;

	sigemptyset(&action.sa_mask);
	sigemptyset(&wake);
	sigaddset(&wake, WAKE_SIGNAL);
	self = calloc(1, sizeof(*self));
	if (!self || sigaction(WAKE_SIGNAL, &action, NULL) != 0
			|| pthread_sigmask(SIG_UNBLOCK, &wake, NULL) != 0) {
		free(self);
		self = NULL;
		return false;
	}
	self->thread = pthread_self();
	self->vm_interrupt = &EG(vm_interrupt);
#ifdef OWN_TIMERS
	self->timed_out = &EG(timed_out);
#endif
	return true;
}

void interrupt_interpreter_stop(void)
{
#ifdef OWN_TIMERS
	if (self && self->has_timer) {
		timer_delete(self->timer);
	}
#endif
	free(self);
	self = NULL;
}

howdah_interpreter *howdah_interpreter_self(void)
{
	return self;
}

void interrupt_request_start(void)
{
	if (self) {
		atomic_fetch_add(&self->number, 1);
	}
}

/* PHP clears EG(vm_interrupt) while it starts a request. */
void interrupt_request_started(void)
{
	if (sentence() != HOWDAH_GO_ON) {
		interrupt_soon();
	}
}

void interrupt_request_end(void)
{
	if (self) {
		/* An even later call must not find its request: numbers are not used twice. */
		atomic_store(&self->sentence, 0);
	}
}
