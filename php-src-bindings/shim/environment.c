/* One environment for each request, on thread-safe (ZTS) PHP.
 *
 * putenv() changes the environment of the whole process, which threads share. There it writes to a table
 * of the calling thread instead, which lasts as long as the request. To be seen by everyone whom PHP's own
 * putenv() would reach, this file defines some of libc's functions, which the executable exports (as in
 * locale.c): getenv(), for PHP and the libraries it calls, and what starts programs. Ordinary (NTS) PHP has
 * the process to itself, and undoes putenv() when the request ends. */
#ifndef _GNU_SOURCE
# define _GNU_SOURCE /* RTLD_NEXT, environ */
#endif

#include "internal.h"

#ifdef ZTS

#include <dlfcn.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <unistd.h>

#include "zend_smart_str.h"

/* The variables that the request on this thread has set: name => its value, or null where it is unset.
 * Not in the module's globals, as getenv() is called on threads that have none. */
ZEND_TLS HashTable *overlay;

static FILE *(*libc_popen)(const char *, const char *);
static int (*libc_posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *,
	const posix_spawnattr_t *, char *const [], char *const []);
static int (*libc_posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *,
	const posix_spawnattr_t *, char *const [], char *const []);

/* --- putenv() and getenv() --------------------------------------------------------------- */

static ZEND_FUNCTION(putenv)
{
	char *setting, *sign;
	size_t length;
	zval value;

	(void) execute_data;
	ZEND_PARSE_PARAMETERS_START(1, 1)
		Z_PARAM_STRING(setting, length)
	ZEND_PARSE_PARAMETERS_END();

	if (length == 0 || setting[0] == '=') {
		zend_argument_value_error(1, "must have a valid syntax");
		RETURN_THROWS();
	}
	if (!overlay) {
		ALLOC_HASHTABLE(overlay);
		zend_hash_init(overlay, 8, NULL, ZVAL_PTR_DTOR, 0);
	}
	sign = strchr(setting, '=');
	if (sign) {
		ZVAL_STRING(&value, sign + 1);
		length = sign - setting;
	} else {
		ZVAL_NULL(&value);
	}
	/* Not by zend_symtable_update: a variable may be called "1". */
	zend_hash_str_update(overlay, setting, length, &value);
	RETURN_TRUE;
}

static zval *overlaid(const char *name, size_t length)
{
	return overlay ? zend_hash_str_find(overlay, name, length) : NULL;
}

/* Replaces libc's. */
ZEND_API char *getenv(const char *name)
{
	size_t length = strlen(name);
	zval *value = overlaid(name, length);

	if (value) {
		return Z_TYPE_P(value) == IS_STRING ? Z_STRVAL_P(value) : NULL;
	}
	for (char **entry = environ; entry && *entry; entry++) {
		if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') {
			return *entry + length + 1;
		}
	}
	return NULL;
}

/* For $_ENV, $_SERVER and getenv() without a name, after the process's own variables. */
void environment_import(zval *array)
{
	zend_string *name;
	zval *value;

	if (!overlay) {
		return;
	}
	ZEND_HASH_FOREACH_STR_KEY_VAL(overlay, name, value) {
		if (Z_TYPE_P(value) == IS_STRING) {
			php_register_variable_safe(ZSTR_VAL(name), Z_STRVAL_P(value), Z_STRLEN_P(value), array);
		} else {
			zend_symtable_del(Z_ARRVAL_P(array), name);
		}
	} ZEND_HASH_FOREACH_END();
}

/* --- Programs that PHP starts ------------------------------------------------------------ */

/* The environment as this thread sees it, from malloc with all its strings in one block; null where it
 * is the process's. */
static char **merged(void)
{
	size_t count = 1, size = 0;
	zend_string *name;
	zval *value;
	char **environment, **next, *text;

	if (!overlay) {
		return NULL;
	}
	for (char **entry = environ; entry && *entry; entry++) {
		count++;
	}
	ZEND_HASH_FOREACH_STR_KEY_VAL(overlay, name, value) {
		if (Z_TYPE_P(value) == IS_STRING) {
			count++;
			size += ZSTR_LEN(name) + Z_STRLEN_P(value) + sizeof("=");
		}
	} ZEND_HASH_FOREACH_END();
	environment = next = malloc(count * sizeof(char *) + size);
	if (!environment) {
		return NULL;
	}
	text = (char *) (environment + count);
	for (char **entry = environ; entry && *entry; entry++) {
		if (!overlaid(*entry, strcspn(*entry, "="))) {
			*next++ = *entry;
		}
	}
	ZEND_HASH_FOREACH_STR_KEY_VAL(overlay, name, value) {
		if (Z_TYPE_P(value) == IS_STRING) {
			*next++ = text;
			text += sprintf(text, "%s=%s", ZSTR_VAL(name), Z_STRVAL_P(value)) + 1;
		}
	} ZEND_HASH_FOREACH_END();
	*next = NULL;
	return environment;
}

/* proc_open(), pcntl_fork(): the child has a process, and so an environment, of its own. */
void environment_in_child(void)
{
	char **environment = merged();

	if (environment) {
		environ = environment;
	}
}

static bool is_shell_name(const char *name)
{
	if (*name >= '0' && *name <= '9') {
		return false;
	}
	return *name && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

/* Replaces libc's, for exec(), shell_exec(), system(), passthru(), popen() and mail(). The shell that
 * popen() starts sets the variables. */
ZEND_API FILE *popen(const char *command, const char *mode)
{
	smart_str script = {0};
	zend_string *name;
	zval *value;
	FILE *file;

	if (!overlay) {
		return libc_popen(command, mode);
	}
	ZEND_HASH_FOREACH_STR_KEY_VAL(overlay, name, value) {
		if (!is_shell_name(ZSTR_VAL(name))) {
			continue;
		}
		if (Z_TYPE_P(value) == IS_STRING) {
			smart_str_appends(&script, "export ");
			smart_str_append(&script, name);
			smart_str_appends(&script, "='");
			for (const char *c = Z_STRVAL_P(value); *c; c++) {
				if (*c == '\'') {
					smart_str_appends(&script, "'\\''");
				} else {
					smart_str_appendc(&script, *c);
				}
			}
			smart_str_appends(&script, "'\n");
		} else {
			smart_str_appends(&script, "unset ");
			smart_str_append(&script, name);
			smart_str_appendc(&script, '\n');
		}
	} ZEND_HASH_FOREACH_END();
	smart_str_appends(&script, command);
	smart_str_0(&script);
	file = libc_popen(ZSTR_VAL(script.s), mode);
	smart_str_free(&script);
	return file;
}

/* Replace libc's, for proc_open() of PHP 8.3 and later. */
ZEND_API int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
	const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	char **environment = envp == environ ? merged() : NULL;
	int error = libc_posix_spawn(pid, path, actions, attributes, argv, environment ? environment : envp);

	free(environment);
	return error;
}

ZEND_API int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
	const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	char **environment = envp == environ ? merged() : NULL;
	int error = libc_posix_spawnp(pid, file, actions, attributes, argv, environment ? environment : envp);

	free(environment);
	return error;
}

/* --- Lifetime ------------------------------------------------------------------------------ */

/* Before any thread runs: each will copy the function table. */
void environment_startup(void)
{
	zend_function *putenv = zend_hash_str_find_ptr(CG(function_table), ZEND_STRL("putenv"));

	if (putenv) {
		putenv->internal_function.handler = ZEND_FN(putenv);
	}
}

void environment_request_shutdown(void)
{
	HashTable *ended = overlay;

	if (ended) {
		overlay = NULL;
		zend_hash_destroy(ended);
		FREE_HASHTABLE(ended);
	}
}

/* When the program is loaded, as libraries may start programs before PHP starts. */
__attribute__((constructor)) static void find_libc(void)
{
	*(void **) &libc_popen = dlsym(RTLD_NEXT, "popen");
	*(void **) &libc_posix_spawn = dlsym(RTLD_NEXT, "posix_spawn");
	*(void **) &libc_posix_spawnp = dlsym(RTLD_NEXT, "posix_spawnp");
}

#endif
