/* One locale for each thread.
 *
 * setlocale() sets the locale of the whole process: with threads, one request's setlocale() would change
 * how the others format numbers. This file defines a setlocale() that sets the calling thread's locale.
 * It is exported by the executable (see the package's build.rs), and the dynamic linker prefers an
 * executable's symbols to libc's, so that PHP and the libraries it uses call it. Ordinary (NTS) PHP has
 * the process to itself and calls libc's. */
#ifndef _GNU_SOURCE
# define _GNU_SOURCE
#endif

#include "internal.h"

#ifdef ZTS

#include <langinfo.h>
#include <locale.h>

/* glibc's order, in which it also writes names that combine categories. */
static const struct {
	int category;
	int mask;
	const char *name;
} categories[] = {
	{ LC_CTYPE, LC_CTYPE_MASK, "LC_CTYPE" },
	{ LC_NUMERIC, LC_NUMERIC_MASK, "LC_NUMERIC" },
	{ LC_TIME, LC_TIME_MASK, "LC_TIME" },
	{ LC_COLLATE, LC_COLLATE_MASK, "LC_COLLATE" },
	{ LC_MONETARY, LC_MONETARY_MASK, "LC_MONETARY" },
	{ LC_MESSAGES, LC_MESSAGES_MASK, "LC_MESSAGES" },
	{ LC_PAPER, LC_PAPER_MASK, "LC_PAPER" },
	{ LC_NAME, LC_NAME_MASK, "LC_NAME" },
	{ LC_ADDRESS, LC_ADDRESS_MASK, "LC_ADDRESS" },
	{ LC_TELEPHONE, LC_TELEPHONE_MASK, "LC_TELEPHONE" },
	{ LC_MEASUREMENT, LC_MEASUREMENT_MASK, "LC_MEASUREMENT" },
	{ LC_IDENTIFICATION, LC_IDENTIFICATION_MASK, "LC_IDENTIFICATION" },
};
#define CATEGORIES (sizeof(categories) / sizeof(*categories))

/* What module start-up left: every interpreter begins with it. */
static locale_t initial;
/* The last answer about LC_ALL: it is the caller's until the next call, as in libc. */
ZEND_TLS char *answer;

/* LC_CTYPE=…;LC_NUMERIC=…;… with the names that `name_of` gives, or just the name if all agree. */
static char *join(const char *(*name_of)(size_t index))
{
	const char *first = name_of(0);
	bool agree = true;
	size_t size = 1;
	char *joined, *end;

	for (size_t i = 0; i < CATEGORIES; i++) {
		const char *name = name_of(i);
		agree = agree && strcmp(name, first) == 0;
		size += strlen(categories[i].name) + strlen(name) + 2;
	}
	if (agree) {
		return strdup(first);
	}
	joined = end = malloc(size);
	if (joined) {
		for (size_t i = 0; i < CATEGORIES; i++) {
			end += sprintf(end, "%s%s=%s", i ? ";" : "", categories[i].name, name_of(i));
		}
	}
	return joined;
}

static const char *current_name(size_t index)
{
	return nl_langinfo_l(NL_LOCALE_NAME(categories[index].category), uselocale((locale_t) 0));
}

/* What setlocale(category, "") means. */
static const char *environment_name(size_t index)
{
	const char *variables[] = { "LC_ALL", categories[index].name, "LANG" };

	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
		const char *name = getenv(variables[i]);
		if (name && *name) {
			return name;
		}
	}
	return "C";
}

static char *name_of_all(void)
{
	free(answer);
	answer = join(current_name);
	return answer;
}

/* Makes `locale` the thread's. */
static void use(locale_t locale)
{
	locale_t old = uselocale(locale);

	if (old != LC_GLOBAL_LOCALE) {
		freelocale(old);
	}
}

static bool set(int mask, const char *name)
{
	/* A copy, as newlocale changes its base; none where nothing of it would stay, as glibc forgets to
	 * free it when the answer is "C". */
	locale_t base = mask == LC_ALL_MASK ? NULL : duplocale(uselocale((locale_t) 0));
	locale_t changed = base || mask == LC_ALL_MASK ? newlocale(mask, name, base) : NULL;

	if (!changed) {
		if (base) {
			freelocale(base);
		}
		return false;
	}
	use(changed);
	return true;
}

/* Replaces libc's. */
ZEND_API char *setlocale(int category, const char *name)
{
	if (category == LC_ALL) {
		char *names = NULL;
		bool done = true;

		if (name) {
			names = *name ? NULL : join(environment_name);
			done = set(LC_ALL_MASK, names ? names : name);
			free(names);
		}
		return done ? name_of_all() : NULL;
	}
	for (size_t i = 0; i < CATEGORIES; i++) {
		if (categories[i].category != category) {
			continue;
		}
		if (name && !set(categories[i].mask, *name ? name : environment_name(i))) {
			return NULL;
		}
		return (char *) current_name(i);
	}
	errno = EINVAL;
	return NULL;
}

void locale_engine_start(void)
{
	initial = duplocale(uselocale((locale_t) 0));
}

void locale_interpreter_start(void)
{
	locale_t own = initial ? duplocale(initial) : NULL;

	if (own) {
		use(own);
	}
	/* PHP's own notes about the locale are per thread, and nobody else makes them. */
	zend_update_current_locale();
}

void locale_interpreter_stop(void)
{
	use(LC_GLOBAL_LOCALE);
	free(answer);
	answer = NULL;
}

#endif
